"""The report: a comparison as one page that opens anywhere, without a network."""

from headstart.compare.report.page import check_report, write_report

__all__ = ["check_report", "write_report"]
