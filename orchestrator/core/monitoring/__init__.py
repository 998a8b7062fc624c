"""What is exported to monitoring systems: the catalogue of metrics, and how runs become samples."""
