"""What NeutroFlag costs on this machine: ``python -m bench``. It never asserts a time."""
