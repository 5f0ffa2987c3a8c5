"""TABLES AND FOLDERS: what a source needs to list its records before it reads them."""
