"""A view: the recorded geometry under which the detector saw an image (orientation, crop, flip, resize)."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict


class ViewTransform(BaseModel):
    """From pixels of the original image to pixels of the detector's input, in this order: crop, flip, resize.

    The original image is the file after its EXIF orientation has been applied. View 0 is always the plain resize.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    original_size: tuple[int, int]
    """(height, width) of the image, in pixels."""
    crop: tuple[int, int, int, int]
    """x0, y0, x1, y1 in pixels of the original image; (0, 0, width, height) where nothing is cut off."""
    flip: bool = False
    """Mirrored left to right, after the crop."""
    resized_size: tuple[int, int]
    """(height, width) of the detector's input, in pixels."""

    @property
    def crop_size(self) -> tuple[int, int]:
        """(height, width) of the crop in original pixels: the frame of the view's ground truth and predicted masks."""
        x0, y0, x1, y1 = self.crop
        return y1 - y0, x1 - x0

    @property
    def is_plain(self) -> bool:
        """True where the view shows the whole image, not mirrored: view frame and image frame are the same."""
        height, width = self.original_size
        return self.crop == (0, 0, width, height) and not self.flip
