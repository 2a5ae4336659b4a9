"""For clients of doors without TLS."""

import ssl

# What certificates the machine trusts takes longer to load than most pages.
PLAIN = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
