"""Where work runs and how it shows: run folders, worker processes, devices, progress."""
