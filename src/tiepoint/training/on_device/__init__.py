"""Training pairs made on a device."""
