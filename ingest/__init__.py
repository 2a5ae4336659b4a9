"""The doors in, and reading. A door is a module of its own, so that reading a message never loads a web server."""

__all__ = ["body", "envelope", "fhir_http", "fhir_types", "hl7_http", "kafka", "meter", "mllp", "reading"]
