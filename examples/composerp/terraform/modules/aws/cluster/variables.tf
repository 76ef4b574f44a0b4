variable "name" {
  type        = string
  description = "The name of the cluster."
}

variable "kubernetes_version" {
  type        = string
  description = "The minor version of Kubernetes."
}

variable "subnet_ids" {
  type        = list(string)
  description = "The private subnets of the control plane."
}

variable "subnet_ids_by_zone" {
  type        = map(string)
  description = "The private subnet of each zone, for the nodes."
}

variable "kms_key_arn" {
  type        = string
  description = "The key that encrypts Secrets, volumes and logs."
}

variable "private_api" {
  type        = bool
  description = "Whether the API server has a private address only."
}

variable "api_addresses" {
  type        = list(string)
  description = "Who may reach a public API server, as CIDR blocks."
  default     = []
}

variable "administrator_arns" {
  type        = set(string)
  description = "The IAM roles that administrate the cluster; nobody else gets in before role bindings are applied."
}

variable "pools" {
  type = map(object({
    count        = number
    machine_type = string
    zones        = list(string)
    dedicated    = bool
  }))

  description = "The node pools; their nodes are spread evenly over their zones."
}

variable "identity" {
  type = object({
    issuer_url   = string
    client_id    = string
    groups_claim = string
  })

  description = "Who says who somebody is; when it is not set, only IAM does."
  default     = null
}
