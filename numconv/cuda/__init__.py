"""Methods on an NVIDIA GPU; imported only when a device array or device="cuda" appears."""
