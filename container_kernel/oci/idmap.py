"""IdMap: whose file is it, in the image and on the disk of this host."""

from __future__ import annotations

from typing import Self

from ..errors import ImageError
from ..record import record


@record
class IdMap:
    """How user and group ids of an image are written on disk.

    Each extent is ``(image id, disk id, count)``. Frozen trees carry disk ids, layer tars carry
    image ids. ``squash`` names the one id that every id becomes where the host gives only one.
    """

    extents: tuple[tuple[int, int, int], ...]
    squash: bool = False

    @classmethod
    def identity(cls) -> Self:
        """Ids are the same in the image and on disk: a store that belongs to root."""
        return cls(((0, 0, 1 << 32),))

    @classmethod
    def single(cls) -> Self:
        """Every id is the user's own: a host that gives no subordinate ids."""
        return cls(((0, 0, 1),), squash=True)

    @classmethod
    def keep_user(cls, subordinate_count: int) -> Self:
        """The user is the image's uid 1000; everybody else is one of ``subordinate_count`` ids.

        In the working user namespace 0 is the user and 1… are the subordinate ids. So what uid
        1000 writes into a shared folder belongs to the user, and image files of root do not.
        """
        last = subordinate_count - 1000
        return cls(((0, 1, 1000), (1000, 0, 1), (1001, 1001, last)))

    @property
    def is_identity(self) -> bool:
        """True when no translation is needed."""
        return not self.squash and self.extents == ((0, 0, 1 << 32),)

    def to_disk(self, number: int) -> int:
        """The id on disk of the image's id ``number``.

        Raises:
            ImageError: this host has no id for it.
        """
        if self.squash:
            return 0
        for image, disk, count in self.extents:
            if image <= number < image + count:
                return disk + number - image
        raise ImageError(
            f"the image uses id {number}, this host maps only ids below {self._end}",
            hint="give the user a larger range in /etc/subuid and /etc/subgid",
        )

    def to_image(self, number: int) -> int:
        """The image's id of the id ``number`` on disk; ids out of range become 65534 (nobody)."""
        if self.squash:
            return 0
        for image, disk, count in self.extents:
            if disk <= number < disk + count:
                return image + number - disk
        return 65534

    @property
    def _end(self) -> int:
        return max(image + count for image, _, count in self.extents)
