// The libraries name browser classes that Node 20 has not; nothing here uses them.
globalThis.WebSocket ??= class {};
