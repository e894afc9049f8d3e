"""The vocabulary and the seam that protocols and runtimes share. Only stdlib and numpy."""
