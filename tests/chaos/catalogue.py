"""Every fault there is."""

from tests.chaos import (
    faults_jobs,
    faults_processes,
    faults_ray,
    faults_redis,
    faults_redis_memory,
    faults_redis_way,
    faults_store,
)

FAULTS = [
    *faults_processes.FAULTS,
    *faults_redis.FAULTS,
    *faults_redis_memory.FAULTS,
    *faults_redis_way.FAULTS,
    *faults_store.FAULTS,
    *faults_jobs.FAULTS,
    *faults_ray.FAULTS,
]
