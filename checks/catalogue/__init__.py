"""Every control that the catalogue judges as data, without code of its own."""
