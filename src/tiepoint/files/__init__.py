"""Files: written whole or not at all, and read in bounded memory."""
