"""The one place that assembles: nothing below imports it, and each of its modules says in ``__all__`` what it offers."""

__all__: list[str] = []
