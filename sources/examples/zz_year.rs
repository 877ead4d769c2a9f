use smartpulse_sources::real_data::{Series, write_history};
fn main() {
    let t = std::time::Instant::now();
    let s = Series::read(std::fs::File::open(std::env::args().nth(1).unwrap()).unwrap()).unwrap();
    let a = t.elapsed();
    let mut n = 0u64;
    let f = std::fs::File::create(std::env::args().nth(2).unwrap()).unwrap();
    let lines = write_history(&s, f, |l| n = l).unwrap();
    println!("read {a:?} write {:?} lines {lines} {n}", t.elapsed() - a);
}
