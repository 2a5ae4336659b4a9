"""Pages for clinicians and operators: read beside the engine, changed only through its actions."""

from console.app import handlers, router
from console.port import Actions, Console, Decision, RefusedInput, Right, Role, Visitor

__all__ = ["Actions", "Console", "Decision", "RefusedInput", "Right", "Role", "Visitor", "handlers", "router"]
