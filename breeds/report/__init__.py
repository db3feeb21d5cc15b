"""Pages that open from disk, with no server and no network: templates, charts, thumbnails."""
