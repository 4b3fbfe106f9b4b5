"""Demo clips: short talking-head videos with known poses and planted defects, made from photographs."""
