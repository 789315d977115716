"""Other tools' instance annotations as COCO instances files; one reader a format."""
