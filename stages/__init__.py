"""The pipeline, one file per stage. A stage is a keyword-only function that reads and writes files."""
