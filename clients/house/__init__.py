"""What every client program of this folder shares: the server under test, its people and devices, and results."""
