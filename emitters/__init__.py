"""The doors out: pure builders (``fhir``, ``hl7v2``) and the sinks that send what they build.

Import a door from its own module (``emitters.fhir_server``, ``emitters.mllp``); only the seam is gathered here.
"""

from emitters.sink import Answer, Delivered, Refused, Sink, TryAgain

__all__ = ["Answer", "Delivered", "Refused", "Sink", "TryAgain"]
