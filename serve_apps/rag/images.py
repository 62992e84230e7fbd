"""Images in a question, as chat completions have them: inside the request, and few. Pure."""

import re
from typing import Any

from serve_apps.common.errors import InvalidRequest

#: Images of one question at most. Their bytes are bounded by those of a request.
MAX_IMAGES = 8

#: What models that see read. An address elsewhere is none of it: the model's server would fetch it for whoever asks.
_INLINE = re.compile(r"data:image/(?:png|jpeg|webp|gif);base64,[A-Za-z0-9+/]+={0,2}")


def url_of(path: str, part: dict[str, Any]) -> str:
    """The image of a part of type ``image_url``, a data URL.

    Raises:
        InvalidRequest: there is none; ``path`` says where.
    """
    given = part.get("image_url")
    url = given.get("url") if isinstance(given, dict) else None
    if not isinstance(url, str) or not _INLINE.fullmatch(url):
        raise InvalidRequest(
            f"{path}.content: image_url.url must be data:image/<png, jpeg, webp or gif>;base64,…; nothing is fetched",
            param=f"{path}.content",
            code="invalid_image",
        )
    return url
