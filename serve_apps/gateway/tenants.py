"""What a tenant may ask for: pure decisions over its rules."""

from serve_apps.common.errors import InvalidRequest, PermissionDenied
from serve_apps.gateway.config import RoutingTable, Tenant
from serve_apps.gateway.request import Wish

#: The metric label of tenants that the table does not name: whoever an issuer invents must not become a series.
OTHER = "other"


def rules(table: RoutingTable, tenant: str) -> Tenant:
    """The tenant's own rules, or those of everybody who has none."""
    return table.tenants.get(tenant, table.other_tenants)


def label(table: RoutingTable, tenant: str) -> str:
    """The tenant as a metric's label."""
    return tenant if tenant in table.tenants else OTHER


def may_use(rules: Tenant, name: str) -> bool:
    """Whether the tenant may name this route, model or pipeline."""
    return rules.models is None or name in rules.models


def check(rules: Tenant, named: str, wish: Wish | None = None, adapter: str | None = None) -> None:
    """Refuse what the rules do not allow; ``named`` is the route's, model's or pipeline's own name.

    An adapter may be used by those who may use its model, and by those whose rules have it alone (``model:adapter``).

    The refusal of a model is OpenAI's for a project without access to it: status 403 with the code
    ``model_not_found``, which clients know as "choose another model". It is no 404, because ``GET /v1/models`` of this
    tenant lists what there is for it, and an operator must see a missing permission as one.

    Raises:
        PermissionDenied: the model is not among the tenant's.
        InvalidRequest: more tokens are asked for than one request of the tenant may have generated.
    """
    id_ = named if adapter is None else f"{named}:{adapter}"
    if not may_use(rules, named) and not may_use(rules, id_):
        allowed = ", ".join(sorted(rules.models or ())) or "none"
        raise PermissionDenied(
            f'You do not have access to the model "{id_}". Models you may use: {allowed}.',
            param="model",
            code="model_not_found",
        )
    if wish is not None and rules.max_tokens is not None and (wish.max_tokens or 0) > rules.max_tokens:
        raise InvalidRequest(
            f"max_tokens is {wish.max_tokens}; one request of yours may have {rules.max_tokens} tokens generated.",
            param="max_tokens",
            code="max_tokens_exceeded",
        )
