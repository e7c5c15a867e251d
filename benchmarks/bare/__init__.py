"""The scripts that graphkit is held against: the fewest lines that make the same file, without any proof."""
