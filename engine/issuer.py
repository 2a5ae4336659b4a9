"""JWTs of the configured issuer, verified: for senders' access tokens, and for what an identity provider says of a person.

Rule of the file: a token's words go nowhere but into the comparison; a refusal names what was wrong by fixed words.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Collection
from typing import Any

from joserfc import jws, jwt
from joserfc.errors import BadSignatureError, ExpiredTokenError, JoseError, MissingClaimError

from engine.issuer_settings import IssuerSection
from engine.published import Place, Published, leads_to
from ingest.access import Admitted, Refused, Unverifiable
from ingest.fhir_types import TAKEN
from ingest.scopes import scopes_of

__all__ = ["Jwts", "verified"]

_LONGEST = 16 * 1024


class Jwts:
    """``ingest.access.Issuer``."""

    def __init__(self, section: IssuerSection, clock: Callable[[], float] = time.time) -> None:
        """``clock``: seconds since 1970."""
        place = Place(
            issuer=section.url,
            jwks_url=section.jwks_url,
            jwks_file=section.jwks_file,
            ca=section.ca,
            timeout_s=section.timeout_s,
        )
        self._published = Published(place, section.algorithms, clock)
        self._algorithms = section.algorithms
        self._issuer = section.url
        self._claims = jwt.JWTClaimsRegistry(
            now=lambda: int(clock()),
            leeway=section.leeway_s,
            iss={"essential": True, "value": section.url},
            aud={"essential": True, "value": section.audience},
            exp={"essential": True},
        )

    def problems(self) -> list[str]:
        """What stands against these settings before anything is asked."""
        return self._published.problems("http.issuer")

    async def smart(self) -> dict[str, Any]:
        """What a client must know to get a token for us (SMART App Launch 2.2, Backend Services); from the issuer's own word.

        The token endpoint is left out while the issuer cannot be asked, or where its keys come from a file.
        """
        try:
            document = await self._published.document()
        except Unverifiable:
            document = {}
        place = leads_to(document, "token_endpoint", self._issuer)
        methods = document.get("token_endpoint_auth_methods_supported")
        return {
            "issuer": self._issuer,
            **({"token_endpoint": place} if place else {}),
            "grant_types_supported": ["client_credentials"],
            "token_endpoint_auth_methods_supported": methods if isinstance(methods, list) else ["private_key_jwt"],
            "token_endpoint_auth_signing_alg_values_supported": ["RS384", "ES384"],
            "scopes_supported": [f"system/{kind}.cu" for kind in sorted(TAKEN - {"Bundle", "Parameters"})],
            "capabilities": ["client-confidential-asymmetric", "permission-v1", "permission-v2"],
        }

    async def admit(self, token: str) -> Admitted:
        claims = await verified(token, self._published, self._algorithms, self._claims, ("jwt", "at+jwt"))
        scope = claims.get("scope", claims.get("scp", ""))
        granted = " ".join(map(str, scope)) if isinstance(scope, list) else str(scope)
        return Admitted(f"jwt:{_name(claims)}", scopes_of(granted))


async def verified(
    token: str,
    published: Published,
    algorithms: Collection[str],
    expected: jwt.JWTClaimsRegistry,
    types: Collection[str],
) -> dict[str, Any]:
    """The claims of a token that is signed by a published key and says what is expected. Raises Refused and Unverifiable."""
    if len(token) > _LONGEST or not token.isascii() or token.count(".") != 2:
        raise Refused("not a token of the issuer")
    try:
        header = jws.extract_compact(token.encode()).headers()
    except (JoseError, ValueError, TypeError, RecursionError):
        raise Refused("not a token of the issuer") from None
    algorithm, key_id = header.get("alg"), header.get("kid", "")
    if not isinstance(algorithm, str) or algorithm not in algorithms or not isinstance(key_id, str):
        raise Refused("algorithm")
    if str(header.get("typ", "JWT")).lower().removeprefix("application/") not in types:
        raise Refused("not an access token")
    key = await published.key(algorithm, key_id)
    if key is None:
        raise Refused("unknown key")
    try:
        claims = jwt.decode(token, key, algorithms=[algorithm]).claims
        expected.validate(claims)
    except BadSignatureError:
        raise Refused("signature") from None
    except ExpiredTokenError:
        raise Refused("expired") from None
    except MissingClaimError as error:
        raise Refused(f"without {error.claim}") from None
    except JoseError as error:
        # A claim's name is the standard's; anything else of the error could quote the token.
        raise Refused(str(getattr(error, "claim", "") or "not a token of the issuer")) from None
    except (ValueError, TypeError, RecursionError):
        raise Refused("not a token of the issuer") from None
    return dict(claims)


def _name(claims: dict[str, Any]) -> str:
    """Who it was given to, in letters that cannot be taken for another part of an address."""
    name = next((claims[key] for key in ("client_id", "azp", "sub") if isinstance(claims.get(key), str)), "")
    return re.sub(r"[^A-Za-z0-9_.-]", "_", name)[:64] or "unnamed"
