"""Local rounds: nodes train by themselves, and their parameters are averaged here now and then."""

from __future__ import annotations

from orchestrator.core.base.errors import OrchestrateError
from orchestrator.engine.sharing.rank_exchange import Exchange
from orchestrator.engine.support.context import Post, RunContext


async def average(exchange: Exchange, context: RunContext, post: Post) -> None:
    """Serve every round until all nodes have ended. Raises ``OrchestrateError``, ``OSError``; the
    nodes are told why before that.
    """
    from orchestrator.engine.sharing.diloco_service import (
        DilocoService,
    )  # numpy: other runs need none

    service = DilocoService(exchange, context, post)
    try:
        await service.serve()
    except (OrchestrateError, OSError) as error:
        await service.fail_nodes(str(error))
        raise
    finally:
        await service.close()
