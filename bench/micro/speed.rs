//! How long the pure functions take: `cargo bench -p bench --bench speed`.

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};

#[path = "work.rs"]
mod work;

fn speed(criterion: &mut Criterion) {
    for mut work in work::all() {
        let mut group = criterion.benchmark_group("micro");
        if work.bytes > 0 {
            group.throughput(Throughput::Bytes(work.bytes as u64));
        }
        group.bench_function(work.name, |bencher| {
            bencher.iter_batched(|| (), |()| (work.run)(), BatchSize::SmallInput);
        });
        group.finish();
    }
}

criterion_group!(benches, speed);
criterion_main!(benches);
