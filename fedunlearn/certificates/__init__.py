"""What a request that has ended leaves behind: a signed certificate, and how it is verified."""
