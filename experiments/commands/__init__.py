"""The commands of `mntp`: thin functions over the other rooms."""
