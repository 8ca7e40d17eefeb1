use std::collections::{BTreeMap, HashMap};
use std::fmt;

#[derive(Clone, Debug)]
struct Order { name: String, amount: u32, price: f64 }

trait Priced { fn price(&self) -> f64; }
impl Priced for Order { fn price(&self) -> f64 { self.price * f64::from(self.amount) } }
impl fmt::Display for Order {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result { write!(f, "{}: {}", self.name, self.price()) }
}

mod shop {
    use super::*;
    pub struct Shop { sold: BTreeMap<String, Vec<Order>> }
    impl Shop {
        pub fn new() -> Self { Shop { sold: BTreeMap::new() } }
        pub fn sell(&mut self, who: &str, o: Order) { self.sold.entry(who.to_string()).or_default().push(o) }
        pub fn sort(&mut self) {
            for v in self.sold.values_mut() { v.sort_by(|a, b| a.price().partial_cmp(&b.price()).unwrap().then_with(|| a.name.cmp(&b.name))); }
        }
        pub fn sum(&self) -> f64 { self.sold.values().flat_map(|v| v.iter()).map(Priced::price).filter(|p| *p > 0.1).sum() }
    }
}

fn main() {
    let mut s = shop::Shop::new();
    let mut names = HashMap::new();
    for i in 0..1000u32 {
        names.insert(i, format!("name{}", i));
        let o = Order { name: names[&(i * 7 % (i + 1))].clone(), amount: i, price: 1.0 / f64::from(i + 1) };
        if i == 999 { println!("{}", o); }
        s.sell(&names[&i].clone(), o);
    }
    s.sort();
    println!("{}", s.sum());
}
