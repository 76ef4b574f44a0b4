# From platform.regions.primary, in production

output "cluster_endpoint" {
  description = "The address of the API server."
  value       = module.cluster.endpoint
}

output "cluster_name" {
  description = "The name of the cluster."
  value       = module.cluster.name
}

output "identity_secrets_composerp" {
  description = "The annotation of the service account secrets."
  value       = module.identity_secrets_composerp.annotation
}

output "store_archive" {
  description = "The bucket archive."
  value       = module.store_archive.name
}

output "store_composerp_db" {
  description = "Where clients reach composerp-db."
  value       = module.store_composerp_db.address
}

output "store_composerp_kafka" {
  description = "Where clients reach composerp-kafka."
  value       = module.store_composerp_kafka.address
}
