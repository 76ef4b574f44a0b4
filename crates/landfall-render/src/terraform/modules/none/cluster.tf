variable "pools" {
  type = map(object({
    count     = number
    cpu       = number
    memory    = number
    zones     = list(string)
    dedicated = bool
  }))

  description = "The nodes that the platform needs: cores and GiB are of each node."
}

# Nobody makes the machines of an on-premises cluster here; the plan says whether they are what the file declares.
data "kubernetes_nodes" "pool" {
  for_each = var.pools

  metadata {
    # The nodes of `platform.nodes` have no label of a pool.
    labels = each.key == "default" ? {} : { "landfall.dev/pool" = each.key }
  }

  lifecycle {
    postcondition {
      condition     = length(self.nodes) >= each.value.count
      error_message = "Pool ${each.key} has ${length(self.nodes)} nodes (label landfall.dev/pool); the file declares ${each.value.count}."
    }

    postcondition {
      condition = alltrue([
        for zone in each.value.zones : contains([for node in self.nodes : lookup(node.metadata[0].labels, "topology.kubernetes.io/zone", "")], zone)
      ])

      error_message = "Pool ${each.key} has no node in one of the zones ${join(", ", each.value.zones)}; zones are labels topology.kubernetes.io/zone."
    }

    postcondition {
      condition = !each.value.dedicated || alltrue([
        for node in self.nodes : anytrue([for taint in node.spec[0].taints : taint.key == "landfall.dev/pool"])
      ])

      error_message = "A node of the dedicated pool ${each.key} has no taint landfall.dev/pool; other pods would be placed on it."
    }
  }
}

output "nodes" {
  description = "The nodes of each pool."
  value       = { for pool, found in data.kubernetes_nodes.pool : pool => [for node in found.nodes : node.metadata[0].name] }
}
