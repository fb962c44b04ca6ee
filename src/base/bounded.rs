//! Collections with a bound. Full is an answer, not growth.

/// Values under small numbers that are used again. Keys are handed out in a fixed order, so two runs with
/// the same inputs give out the same keys.
#[derive(Debug, Clone)]
pub struct Slab<T> {
    places: Vec<Option<T>>,
    free: Vec<u32>,
    limit: usize,
}

impl<T> Slab<T> {
    /// A slab that holds at most `limit` values.
    pub fn new(limit: usize) -> Slab<T> {
        assert!(limit <= u32::MAX as usize);
        Slab {
            places: Vec::new(),
            free: Vec::new(),
            limit,
        }
    }

    /// Stores `value`; gives it back where the slab is full.
    pub fn insert(&mut self, value: T) -> Result<u32, T> {
        if let Some(key) = self.free.pop() {
            self.places[key as usize] = Some(value);
            return Ok(key);
        }
        if self.places.len() == self.limit {
            return Err(value);
        }
        self.places.push(Some(value));
        Ok(self.places.len() as u32 - 1)
    }

    pub fn remove(&mut self, key: u32) -> Option<T> {
        let value = self.places.get_mut(key as usize)?.take();
        if value.is_some() {
            self.free.push(key);
        }
        value
    }

    pub fn get(&self, key: u32) -> Option<&T> {
        self.places.get(key as usize)?.as_ref()
    }

    pub fn get_mut(&mut self, key: u32) -> Option<&mut T> {
        self.places.get_mut(key as usize)?.as_mut()
    }

    pub fn len(&self) -> usize {
        self.places.len() - self.free.len()
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    pub fn is_full(&self) -> bool {
        self.len() == self.limit
    }

    /// The values in the order of their keys.
    pub fn iter(&self) -> impl Iterator<Item = (u32, &T)> {
        self.places
            .iter()
            .enumerate()
            .filter_map(|(key, v)| Some((key as u32, v.as_ref()?)))
    }

    pub fn iter_mut(&mut self) -> impl Iterator<Item = (u32, &mut T)> {
        self.places
            .iter_mut()
            .enumerate()
            .filter_map(|(key, v)| Some((key as u32, v.as_mut()?)))
    }
}

impl<T> std::ops::Index<u32> for Slab<T> {
    type Output = T;
    fn index(&self, key: u32) -> &T {
        self.get(key).expect("a slab key that is in use")
    }
}

impl<T> std::ops::IndexMut<u32> for Slab<T> {
    fn index_mut(&mut self, key: u32) -> &mut T {
        self.get_mut(key).expect("a slab key that is in use")
    }
}

/// A first-in first-out queue that holds at most `limit` values.
#[derive(Debug, Clone)]
pub struct Ring<T> {
    items: std::collections::VecDeque<T>,
    limit: usize,
}

impl<T> Ring<T> {
    pub fn new(limit: usize) -> Ring<T> {
        Ring {
            items: std::collections::VecDeque::new(),
            limit,
        }
    }

    /// Appends `item`; gives it back where the queue is full.
    pub fn push(&mut self, item: T) -> Result<(), T> {
        if self.items.len() == self.limit {
            return Err(item);
        }
        self.items.push_back(item);
        Ok(())
    }

    pub fn pop(&mut self) -> Option<T> {
        self.items.pop_front()
    }

    pub fn front(&self) -> Option<&T> {
        self.items.front()
    }

    pub fn len(&self) -> usize {
        self.items.len()
    }

    pub fn is_empty(&self) -> bool {
        self.items.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_slab_gives_the_value_back_and_uses_keys_again() {
        let mut slab = Slab::new(2);
        let (a, b) = (slab.insert('a').unwrap(), slab.insert('b').unwrap());
        assert_eq!(slab.insert('c'), Err('c'));
        assert_eq!(slab.remove(a), Some('a'));
        assert_eq!(slab.remove(a), None);
        assert_eq!(slab.insert('c'), Ok(a));
        assert_eq!((slab[a], slab[b], slab.len()), ('c', 'b', 2));
    }

    #[test]
    fn a_full_ring_gives_the_value_back() {
        let mut ring = Ring::new(1);
        assert_eq!(ring.push(1), Ok(()));
        assert_eq!(ring.push(2), Err(2));
        assert_eq!(ring.pop(), Some(1));
        assert_eq!(ring.pop(), None);
    }
}
