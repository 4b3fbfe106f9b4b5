"""Shows why one video ended as it did: its tracks, the reasons along its time, and its images."""
