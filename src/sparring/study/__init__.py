"""Arms, seeds and measures as one resumable job."""
