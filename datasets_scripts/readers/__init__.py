"""FILES TO RECORDS: one file format each, checked before anything it names or announces is opened or allocated."""
