/// Whose time is up next: a binary heap by time that knows where everybody is, so that whoever leaves early leaves no trace.
#[derive(Debug)]
pub(super) struct Expiry {
    heap: Vec<(u64, u32)>,
    /// Where in the heap a slot is, for slots that are in it.
    at: Vec<u32>,
}

impl Expiry {
    pub(super) fn new() -> Self {
        Self { heap: Vec::new(), at: Vec::new() }
    }

    /// The first whose time is up at `now`.
    pub(super) fn first(&self, now: u64) -> Option<u32> {
        self.heap.first().filter(|(until, _)| *until <= now).map(|(_, slot)| *slot)
    }

    pub(super) fn insert(&mut self, until: u64, slot: u32) {
        if self.at.len() <= slot as usize {
            self.at.resize(slot as usize + 1, 0);
        }
        self.heap.push((until, slot));
        self.rise(self.heap.len() - 1);
    }

    /// Removes a slot that is in it.
    pub(super) fn remove(&mut self, slot: u32) {
        let position = self.at[slot as usize] as usize;
        self.heap.swap_remove(position);
        if position < self.heap.len() {
            self.sink(position);
            self.rise(position);
        }
    }

    fn rise(&mut self, mut position: usize) {
        let moved = self.heap[position];
        while position > 0 {
            let parent = (position - 1) / 2;
            if self.heap[parent] <= moved {
                break;
            }
            self.set(position, self.heap[parent]);
            position = parent;
        }
        self.set(position, moved);
    }

    fn sink(&mut self, mut position: usize) {
        let moved = self.heap[position];
        loop {
            let left = 2 * position + 1;
            let Some(&(mut child)) = self.heap.get(left) else { break };
            let mut next = left;
            if let Some(&right) = self.heap.get(left + 1)
                && right < child
            {
                (child, next) = (right, left + 1);
            }
            if moved <= child {
                break;
            }
            self.set(position, child);
            position = next;
        }
        self.set(position, moved);
    }

    fn set(&mut self, position: usize, entry: (u64, u32)) {
        self.heap[position] = entry;
        self.at[entry.1 as usize] = position as u32;
    }
}
