"""RECORDS TO DATA SETS: shards, their report, their way to the Hub and back, record by record."""
