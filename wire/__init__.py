"""Bytes to values and back, no I/O: MLLP frames, ER7 text, acknowledgements. Import from the modules."""

__all__: list[str] = []
