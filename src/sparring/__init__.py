"""Sparring: an image editor and a vision-language model train each other by playing against each other."""

__version__ = "0.1.0"
