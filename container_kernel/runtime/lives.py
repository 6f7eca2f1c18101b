"""Lives: the live containers of a notebook, one per stage, each on its stage's image.

When an image changes, its container goes over to the new one with all that runs in it, if that is
safe (see `rebase`); else another takes its place.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator

from ..errors import RebaseRefused
from ..oci.digest import Digest
from ..oci.spec import ImageConfig
from ..record import record
from .live import Live

Open = Callable[[Digest, ImageConfig], Live]
_ASKED = "--restart asks for it"


@record
class Move:
    """What became of a container when its image changed. ``is_kept``: what ran in it goes on.

    ``reason`` says why it was replaced; or why it is kept on the image it had, if it is.
    """

    is_kept: bool
    reason: str = ""
    is_of_image: bool = True
    """False when it was replaced for something else than its image."""


class Lives:
    """``open_live`` makes a container for an image."""

    def __init__(self, open_live: Open) -> None:
        self._open = open_live
        self._lives: dict[str, Live] = {}
        self._refused: dict[str, tuple[Digest, ImageConfig]] = {}
        self._moves: dict[str, Move] = {}
        self._outdated: dict[str, str] = {}

    def __iter__(self) -> Iterator[Live]:
        return iter(self._lives.values())

    def get(self, stage: str) -> Live | None:
        """The container of a stage, on whatever image it has."""
        return self._lives.get(stage)

    def adopt(self, stage: str, live: Live) -> None:
        """Take up a container of a stage that has none."""
        self._lives[stage] = live

    def on(
        self, stage: str, chain: Digest, config: ImageConfig, *, restart: bool | None = None
    ) -> Live:
        """The container of a stage, on that image.

        Args:
            stage: its name.
            chain: the image's file system.
            config: the image's config.
            restart: never keep what runs there if True; if False, always keep it, on the image
                that it has when it must be.
        """
        if self._outdated.get(stage):
            restart = True
        if not restart and self.try_to_keep(stage, chain, config, at_any_price=restart is False):
            return self._lives[stage]
        live = self._lives.get(stage)
        is_current = live is not None and self._is_on(stage, live, chain, config)
        if live is not None and is_current and stage not in self._outdated:
            return live
        if live is not None:
            outdated = self._outdated.pop(stage, None)
            reason = outdated or (_ASKED if restart else self._moves[stage].reason)
            self._moves[stage] = Move(False, reason, is_of_image=outdated is None)
            self._lives.pop(stage).close()
        self._refused.pop(stage, None)
        self._lives[stage] = self._open(chain, config)
        return self._lives[stage]

    def renew(self, stage: str, reason: str) -> None:
        """Have another container take the place of a stage's, when it is asked for next."""
        if stage in self._lives:
            self._outdated[stage] = reason

    def try_to_keep(
        self, stage: str, chain: Digest, config: ImageConfig, *, at_any_price: bool = False
    ) -> bool:
        """Bring a stage's container over to an image; False when it has none or cannot go along.

        ``at_any_price`` is True after all when it cannot: it is then kept on the image it has.
        """
        live = self._lives.get(stage)
        if live is None or stage in self._outdated:
            return False
        if self._is_on(stage, live, chain, config):
            return True
        was = live.chain_id
        try:
            live.rebase(chain, config)
        except RebaseRefused as refused:
            self._moves[stage] = Move(at_any_price, refused.message)
            if at_any_price:
                self._refused[stage] = chain, config
            return at_any_price
        self._refused.pop(stage, None)
        if live.chain_id != was:
            self._moves[stage] = Move(True)
        return True

    def take_move(self, stage: str) -> Move | None:
        """What happened to a stage's container since this was asked last."""
        return self._moves.pop(stage, None)

    def close_others(self, stages: Collection[str]) -> None:
        """End the containers of all stages but these."""
        for stage in self._lives.keys() - set(stages):
            self._lives.pop(stage).close()

    def close(self) -> None:
        """End all."""
        for live in self:
            live.close()
        self._lives.clear()

    def _is_on(self, stage: str, live: Live, chain: Digest, config: ImageConfig) -> bool:
        return (chain, config) in ((live.chain_id, live.config), self._refused.get(stage))
