"""One module per tab: build(studio) makes its components, wire(studio, lab) its events."""
