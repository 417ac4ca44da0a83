"""The statistics of a comparison: plain functions of numbers, each with its source. None knows what a run is."""
