//! What the driver tests share: where they run, and what must be as before when they are done.
