use std::ops::Index;

/// Those who wait, in slots that are used again, and strung on [`Row`]s.
#[derive(Debug)]
pub(super) struct Slots<T> {
    slots: Vec<Slot<T>>,
    /// Free ones, strung by `after`.
    free: u32,
    len: u32,
    /// How many have ever come.
    came: u64,
}

/// Somebody who waits.
#[derive(Debug)]
pub(super) struct Entry<T> {
    pub(super) item: T,
    pub(super) class: usize,
    pub(super) bucket: usize,
    pub(super) arrived: u64,
    pub(super) until: u64,
    pub(super) deadline: Option<u64>,
}

impl<T> Entry<T> {
    /// Whether it cannot make its deadline, were it granted now.
    pub(super) fn too_late(&self, now: u64, service: u64) -> bool {
        self.deadline.is_some_and(|deadline| now.saturating_add(service) > deadline)
    }
}

#[derive(Debug)]
struct Slot<T> {
    entry: Option<Entry<T>>,
    /// Which arrival it was or is.
    order: u64,
    before: u32,
    after: u32,
}

/// Some of them in the order in which they came.
#[derive(Clone, Debug)]
pub(super) struct Row {
    first: u32,
    last: u32,
    len: u32,
    /// Since when it has not been empty.
    pub(super) since: u64,
}

const NOBODY: u32 = u32::MAX;

impl Row {
    pub(super) const EMPTY: Self = Self { first: NOBODY, last: NOBODY, len: 0, since: 0 };

    /// Who came first, of a row that is not empty.
    pub(super) fn first(&self) -> u32 {
        self.first
    }

    /// Who came last, of a row that is not empty.
    pub(super) fn last(&self) -> u32 {
        self.last
    }

    pub(super) fn len(&self) -> u32 {
        self.len
    }
}

impl<T> Slots<T> {
    pub(super) fn new() -> Self {
        Self { slots: Vec::new(), free: NOBODY, len: 0, came: 0 }
    }

    pub(super) fn len(&self) -> u32 {
        self.len
    }

    /// How many slots there are, taken and free.
    #[cfg(all(test, not(buttress_loom)))]
    pub(super) fn room(&self) -> usize {
        self.slots.len()
    }

    pub(super) fn insert(&mut self, entry: Entry<T>) -> u32 {
        let slot = Slot { entry: Some(entry), order: self.came, before: NOBODY, after: NOBODY };
        self.came += 1;
        self.len += 1;
        let index = self.free;
        if index == NOBODY {
            self.slots.push(slot);
            return (self.slots.len() - 1) as u32;
        }
        self.free = self.slots[index as usize].after;
        self.slots[index as usize] = slot;
        index
    }

    /// Frees the slot of one that is on no row any more.
    pub(super) fn release(&mut self, index: u32) -> Entry<T> {
        let slot = &mut self.slots[index as usize];
        slot.after = self.free;
        self.free = index;
        self.len -= 1;
        slot.entry.take().expect("an index is that of somebody who waits")
    }

    /// The slot, and which arrival it holds, so that a number does not find the next one in the same slot.
    pub(super) fn number(&self, index: u32) -> u64 {
        self.order(index) << 32 | u64::from(index)
    }

    pub(super) fn find(&self, number: u64) -> Option<u32> {
        let index = number as u32;
        let slot = self.slots.get(index as usize)?;
        (slot.entry.is_some() && self.number(index) == number).then_some(index)
    }

    /// The how-manieth arrival it was.
    pub(super) fn order(&self, index: u32) -> u64 {
        self.slots[index as usize].order
    }

    pub(super) fn append(&mut self, row: &mut Row, index: u32) {
        self.slots[index as usize].before = row.last;
        match self.slots.get_mut(row.last as usize) {
            Some(last) => last.after = index,
            None => row.first = index,
        }
        row.last = index;
        row.len += 1;
    }

    pub(super) fn unlink(&mut self, row: &mut Row, index: u32) {
        let Slot { before, after, .. } = self.slots[index as usize];
        match self.slots.get_mut(before as usize) {
            Some(slot) => slot.after = after,
            None => row.first = after,
        }
        match self.slots.get_mut(after as usize) {
            Some(slot) => slot.before = before,
            None => row.last = before,
        }
        row.len -= 1;
    }
}

impl<T> Index<u32> for Slots<T> {
    type Output = Entry<T>;

    fn index(&self, index: u32) -> &Entry<T> {
        self.slots[index as usize].entry.as_ref().expect("an index is that of somebody who waits")
    }
}
