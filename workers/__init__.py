"""Where pixels are made: engines, samplers, the render loop, and the embedded tiny model."""
