"""What a run leaves on disk. Nothing in here imports torch: a thousand runs are read in a moment."""

from headstart.records.schema import RunRecord
from headstart.records.store import find_runs, new_run_folder, read_record, write_record

__all__ = ["RunRecord", "find_runs", "new_run_folder", "read_record", "write_record"]
