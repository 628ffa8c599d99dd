"""What is remembered: settings now; tables, files and migrations as they come."""
