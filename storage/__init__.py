"""Directories and object stores behind one interface: reads with retries, writes that are whole or not there."""
